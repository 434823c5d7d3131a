"""A test for what an elastic inclusion cannot do: a radial displacement that changes its sign with distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import chi2 as chi2_distribution

Array = npt.NDArray[np.float64]

_SHORTEST_NM = 0.25  # wavelength; columns lie about as far apart
_DECAYS = (0.3, 0.6, 1.2, 2.5, 10.0)  # tried, in ranges of distance


@dataclass(frozen=True)
class Oscillation:
    """What is left of the radial displacement when the inclusion is taken out.

    The model is amplitude * cos(2 pi r / wavelength + phase) * exp(-r / decay).

    Parameters
    ----------
    p_value : float
        Chance of such a gain, or a larger one, at any wavelength and decay, from the errors alone.
    wavelength_nm, wavelength_err_nm : float
    decay_nm : float
        Ten times the range of distances where no decay is seen.
    amplitude_pm, amplitude_err_pm : float
        At r = 0, and its 1 sigma at this wavelength, decay and phase.
    phase_rad : float
    gain : float
        By how much the wave lowers chi-square.
    """

    p_value: float
    wavelength_nm: float
    wavelength_err_nm: float
    decay_nm: float
    amplitude_pm: float
    amplitude_err_pm: float
    phase_rad: float
    gain: float


def find_oscillation(
    x: Array, u: Array, err: Array, taken: Array, *, draws: Array | None = None, n_null: int = 2000, seed: int = 0
) -> Oscillation:
    """Test displacements for a damped radial wave.

    The largest fall of chi-square over a grid of wavelengths and decays is compared with that of
    draws of noise; beyond the largest draw, with the tail that their quantiles have.

    Parameters
    ----------
    x : ndarray, shape (n, 2)
        Positions (y, x) from the defect in nm.
    u, err : ndarray, shape (n, 2)
        Displacements and their 1 sigma in nm.
    taken : ndarray, shape (n, 2, p)
        Fields that are free beside the wave: the inclusion, offsets.
    draws : ndarray, shape (m, n, 2), optional
        Noise of the displacements in nm, as half sets or bootstraps have it; None draws it from `err`.
    n_null : int
        Number of draws where there are none.
    seed : int

    Returns
    -------
    Oscillation
    """
    r = np.linalg.norm(x, axis=1)
    outwards, span = x / r[:, None], float(np.ptp(r))
    y = (u / err).ravel()
    fitted, _ = np.linalg.qr((taken / err[..., None]).reshape(y.size, -1))

    def free(columns: Array) -> Array:
        return np.asarray(columns - fitted @ (fitted.T @ columns))

    def wave(frequency: float, decay: float) -> tuple[Array, Array]:
        """Orthonormal basis of cosine and sine, and the triangle that takes amplitudes to it."""
        parts = np.exp(-r / decay + 2j * np.pi * r * frequency)
        radial = np.stack([parts.real, -parts.imag], -1)[:, None, :] * outwards[..., None]
        q, upper = np.linalg.qr(free((radial / err[..., None]).reshape(y.size, 2)))
        return q, upper

    frequencies = np.linspace(1 / max(span, 1.2 * _SHORTEST_NM), 1 / _SHORTEST_NM, 28)
    trials = [(f, d * span) for f in frequencies for d in _DECAYS]
    stack = np.concatenate([wave(*trial)[0] for trial in trials], 1)

    def gains(data: Array) -> Array:
        return np.asarray(((stack.T @ free(data)) ** 2).reshape(len(trials), 2, -1).sum(1))

    observed = gains(y[:, None])[:, 0]
    nulls = np.sort(gains(np.random.default_rng(seed).standard_normal((y.size, n_null))).max(0))
    unit = 1.0  # variance of the noise in units of `err`
    if draws is not None:
        own = gains((draws / err).reshape(len(draws), -1).T).max(0)
        unit = float(np.median(own) / np.median(nulls))
        nulls = np.sort(own / unit)
    best = trials[int(observed.argmax())]
    log_decay = float(np.log(best[1]))
    tried = [(float(frequencies[0]), float(frequencies[-1])), (log_decay - np.log(2), log_decay + np.log(2))]

    def loss(point: Array) -> float:
        q, _ = wave(point[0], float(np.exp(point[1])))
        return -float(((q.T @ y) ** 2).sum())

    start = [best[0], log_decay]
    found = minimize(loss, start, method="Nelder-Mead", bounds=tried, options={"xatol": 1e-3, "maxfev": 120})
    frequency, decay = float(found.x[0]), float(np.exp(found.x[1]))
    h = 0.02 * frequency
    aside = np.array([h, 0.0])
    bend = (loss(found.x + aside) - 2 * found.fun + loss(found.x - aside)) / h**2
    q, upper = wave(frequency, decay)
    inverse = np.linalg.inv(upper)
    c, s = inverse @ (q.T @ y)
    direction = np.array([c, s]) / np.hypot(c, s)
    return Oscillation(
        p_value=_p_value(float(observed.max()) / unit, nulls),
        wavelength_nm=1 / frequency,
        wavelength_err_nm=float(np.sqrt(2 / max(bend, 1e-30))) / frequency**2,
        decay_nm=decay,
        amplitude_pm=float(1000 * np.hypot(c, s)),
        amplitude_err_pm=float(1000 * np.linalg.norm(inverse.T @ direction)),
        phase_rad=float(np.arctan2(s, c)),
        gain=-float(found.fun),
    )


def _p_value(gain: float, nulls: Array) -> float:
    """Part of the sorted `nulls` above `gain`; beyond them, as many independent trials as explain their upper tenth."""
    above = len(nulls) - int(np.searchsorted(nulls, gain))
    if above > 5 or not len(nulls):
        return (1 + above) / (1 + len(nulls))
    upper = nulls[int(0.9 * len(nulls)) :]
    independent = float(np.mean(np.linspace(0.1, 1 / len(nulls), len(upper)) / chi2_distribution.sf(upper, 2)))
    return min((1 + above) / (1 + len(nulls)), independent * float(chi2_distribution.sf(gain, 2)))
