"""The host lattice straight from the image, at doses where single atoms are lost in the noise.

A hundred atoms that are each uncertain still add up: all reflections of the crystal are looked for
together in the power spectrum (scale and rotation), their phases give the origin, and Newton steps
then maximize the brightness on the sites, over the whole image or around one place.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt
from scipy.fft import dctn, fft2, fftfreq, idctn, next_fast_len
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter
from scipy.stats import median_abs_deviation

from ..crystals import Crystal, get_crystal
from ..gaussian.threads import in_turn
from ..micrograph import Micrograph
from .reciprocal import over_rings

Floats = npt.NDArray[np.float64]

SCALES = (0.6, 1.7)
"""Sizes of the lattice looked for, relative to the crystal's at the stated pixel size."""
_ATOM_NM = 0.05  # blur of the matched filter
_HIGH_PASS_NM = 0.25
_CANDIDATES = 6
_CLEAR = 3.5  # sigma by which the sites together are brighter than the rest


@dataclass(frozen=True, eq=False)
class Host:
    """An affine lattice in an image.

    Parameters
    ----------
    crystal : Crystal
    origin_nm : ndarray, shape (2,)
        Origin of a cell, (y, x).
    vectors_nm : ndarray, shape (2, 2)
        Rows a1, a2, each (y, x).
    residual_pm : float
        1 sigma of where the image puts it, per axis; NaN where the image has no maxima on its sites.
    """

    crystal: Crystal
    origin_nm: Floats
    vectors_nm: Floats
    residual_pm: float = float("nan")

    @property
    def scale(self) -> float:
        """Length in the image over length in the crystal."""
        return float(np.sqrt(abs(np.linalg.det(self.vectors_nm)) / self.crystal.cell_area_nm2))

    def sites_within(self, extent_nm: Floats, *, margin_nm: float = 0.0) -> tuple[Floats, Floats]:
        """Fractional cells (site, 2) and positions in nm (site, 2) of all sites of an image, `margin_nm` beyond it."""
        corners = np.array([(0.0, 0.0), (0, 1), (1, 0), (1, 1)]) * (extent_nm + 2 * margin_nm) - margin_nm
        reach = (corners - self.origin_nm) @ np.linalg.inv(self.vectors_nm)
        low, high = np.floor(reach.min(0)).astype(int) - 1, np.ceil(reach.max(0)).astype(int) + 2
        ij = np.moveaxis(np.mgrid[low[0] : high[0], low[1] : high[1]], 0, -1)
        cells = (ij[:, :, None] + self.crystal.fractions).reshape(-1, 2)
        place = self.origin_nm + cells @ self.vectors_nm
        inside = ((place > -margin_nm) & (place < extent_nm + margin_nm)).all(1)
        return cells[inside], place[inside]


@dataclass(frozen=True, eq=False)
class Field:
    """A frame prepared for looking for lattices: flattened, blurred to the size of an atom, and its derivatives."""

    flat: Floats
    smooth: Floats
    slope: Floats
    bend: Floats
    pixel_nm: Floats

    @classmethod
    def of(cls, micrograph: Micrograph, frame: int = 0) -> Field:
        """Prepare a frame; foreign atoms and dirt are cut off at 3 sigma."""
        pixel = np.asarray(micrograph.pixel_size_yx_nm, np.float64)
        flat = micrograph.frame(frame).astype(float)
        flat = flat - blurred(flat, _HIGH_PASS_NM / pixel)
        flat -= np.median(flat)
        spread = float(median_abs_deviation(flat, axis=None, scale="normal"))
        flat = np.clip(flat, -4 * spread, 3 * spread)
        smooth = blurred(flat, _ATOM_NM / pixel)
        slope = np.array(np.gradient(smooth)) / pixel[:, None, None]
        bend = np.mean([np.gradient(slope[a], pixel[a], axis=a) for a in (0, 1)], axis=0)
        return cls(flat, smooth, slope, bend, pixel)

    @property
    def extent_nm(self) -> Floats:
        """From the centre of the first pixel to that of the last."""
        return np.asarray(self.pixel_nm * (np.array(self.flat.shape) - 1))

    def contrast(self, host: Host) -> float:
        """Sigma by which the sites of a lattice are brighter than the frame."""
        sites = host.sites_within(self.extent_nm, margin_nm=-0.05)[1]
        values = map_coordinates(self.smooth, (sites / self.pixel_nm).T, order=1)
        middle, spread = self._usual
        return float((np.median(values) - middle) / spread * np.sqrt(len(values))) if len(values) else 0.0

    @cached_property
    def _usual(self) -> tuple[float, float]:
        """Middle of the pixels, and their scatter (1 sigma)."""
        return float(np.median(self.smooth)), float(median_abs_deviation(self.smooth, axis=None, scale="normal"))


def find_host(
    field: Field | Micrograph,
    crystal: str | Crystal,
    *,
    scales: tuple[float, float] = SCALES,
    near: Host | None = None,
) -> Host:
    """Find the lattice of a crystal in a frame, without atoms.

    Parameters
    ----------
    field : Field or Micrograph
        A prepared frame, or a still. Its pixel size may be wrong within `scales`.
    crystal : str or Crystal
    scales : (float, float)
    near : Host, optional
        One of almost the same scale and rotation, such as that of the frame before, to begin with.

    Returns
    -------
    Host

    Raises
    ------
    ValueError
        If the crystal's sites do not stand out together.
    """
    crystal = get_crystal(crystal)
    if isinstance(field, Micrograph):
        field = Field.of(field)
    hk, weight = _reflections(crystal)
    bases = [near.vectors_nm] if near is not None else _search(field, crystal, hk, scales)
    steps = np.mgrid[:48, :48].reshape(2, -1).T / 48
    wave = np.exp(2j * np.pi * steps @ hk.T)
    best, contrast = None, _CLEAR
    for basis in bases:
        phase = _transform(field, hk @ np.linalg.inv(basis).T) * np.conj(weight)
        origin = steps[np.real(wave @ phase).argmax()] @ basis
        host = refine_host(field, Host(crystal, origin, basis))
        if host.residual_pm < 25 and (found := field.contrast(host)) > contrast:
            best, contrast = host, found
    if best is None:
        raise ValueError(f"no lattice of {crystal.name} found: its sites do not stand out together.")
    return best


def measure_pixel(
    micrograph: Micrograph, crystal: str | Crystal, *, cell_px: tuple[float, float] = (7.0, 70.0)
) -> float:
    """Size of a pixel in nm by the lattice, whatever is stated.

    Parameters
    ----------
    micrograph : Micrograph
        Of a movie, three frames that are not blank are measured and the middle one counts. Pixels are square, or
        as the stated sizes relate; then it is their geometric mean.
    crystal : str or Crystal
    cell_px : (float, float)
        Smallest and largest lattice constant looked for, in pixels.

    Raises
    ------
    ValueError
        If the crystal's sites do not stand out together at any size.
    """
    crystal = get_crystal(crystal)
    stated = np.ones(2) if micrograph.pixel_size_nm is None else micrograph.pixel_size_yx_nm
    sides = stated / np.sqrt(stated.prod())
    octaves = np.geomspace(*cell_px, 4)
    frames = some(micrograph.seen_frames(), 3)

    def trial(case: tuple[int, tuple[float, float]]) -> tuple[int, float, float] | None:
        """Frame, contrast and pixel size where cells are this small to this large."""
        frame, (low, high) = case
        guess = crystal.a_nm / np.sqrt(low * high)
        field = Field.of(micrograph.with_pixel_size((guess * sides[0], guess * sides[1])), frame)
        half = np.sqrt(high / low) * 1.03
        with suppress(ValueError):
            host = find_host(field, crystal, scales=(1 / half, half))
            return frame, field.contrast(host), guess / host.scale
        return None

    trials = sorted(filter(None, in_turn(trial, product(frames, pairwise(octaves)))))
    found = {frame: size for frame, _, size in trials}  # of each frame the one of the highest contrast
    if not found:
        raise ValueError(
            f"no lattice of {crystal.name} found: no reflections of its shape stand out together; "
            "is it the right image and crystal?"
        )
    return float(np.median(list(found.values())))


def some(frames: list[int], n: int) -> list[int]:
    """At most `n` of these frames, evenly spaced, the first and the last among them."""
    return [frames[k] for k in np.unique(np.linspace(0, len(frames) - 1, n).astype(int))]


def refine_host(
    field: Field,
    host: Host,
    *,
    around_nm: Floats | None = None,
    radius_nm: float = 0.7,
    avoid_nm: Floats | None = None,
) -> Host:
    """Move a lattice to where its sites are brightest.

    Parameters
    ----------
    field : Field
    host : Host
    around_nm : array, shape (2,), optional
        Weigh sites by a Gaussian of `radius_nm` about this place, which follows the scan's distortion there.
    avoid_nm : array, shape (n, 2), optional
        Sites within two bonds of these count nothing.

    Returns
    -------
    Host
    """
    host = replace(host, residual_pm=float("nan"))
    wave = 2 * np.pi * np.linalg.norm(np.linalg.inv(host.crystal.vectors_nm), axis=0).min()
    for _ in range(12):
        cells, sites = host.sites_within(field.extent_nm, margin_nm=-0.05)
        if len(sites) < 6:
            break
        weight = np.ones(len(sites))
        if around_nm is not None:
            weight = np.exp(-0.5 * ((sites - around_nm) ** 2).sum(1) / radius_nm**2)
        if avoid_nm is not None and len(avoid_nm):
            away = np.linalg.norm(sites[:, None] - avoid_nm, axis=-1).min(1)
            weight[away < 2 * host.crystal.nearest_neighbor_nm] = 0
        at = (sites / field.pixel_nm).T
        height, curve, *force = (map_coordinates(a, at, order=1) for a in (field.smooth, field.bend, *field.slope))
        weight[height > 4 * np.median(height)] = 0  # foreign atoms
        share = weight / max(float(weight.sum()), 1e-9)
        stiff = max(
            -float(share @ curve), wave**2 / 2 * float(share @ height)
        )  # of the image; of its first reflections
        if stiff <= 0:
            return replace(host, residual_pm=float("nan"))
        pull = np.column_stack(force)
        design = np.column_stack([np.ones(len(cells)), cells])
        normal = (design * weight[:, None]).T @ design * stiff
        move = np.linalg.solve(normal + 1e-9 * np.trace(normal) * np.eye(3), (design * weight[:, None]).T @ pull)
        move *= min(1.0, 0.03 / max(np.abs(design @ move)[weight > 0.1].max(initial=0), 1e-12))
        scatter = 1e3 * np.sqrt(np.average((pull**2).mean(1), weights=weight) / weight.sum()) / stiff
        host = Host(host.crystal, host.origin_nm + move[0], host.vectors_nm + move[1:], float(scatter))
        if np.abs(design @ move).max() < 1e-3:
            break
    return host


def _reflections(crystal: Crystal) -> tuple[Floats, npt.NDArray[np.complex128]]:
    """Return the indices of the two innermost rings of reflections, one of each ±, and their structure factors."""
    hk = np.array([(h, k) for h in range(-2, 3) for k in range(-2, 3) if (h, k) > (0, 0)], float)
    length = np.linalg.norm(hk @ np.linalg.inv(crystal.vectors_nm).T, axis=1)
    hk = hk[length < 1.8 * length.min()]
    return hk, np.exp(-2j * np.pi * hk @ crystal.fractions.T).sum(1)


def _transform(field: Field, g: Floats) -> npt.NDArray[np.complex128]:
    """Fourier transform of the windowed frame at frequencies (y, x) in 1/nm, from pixel (0, 0)."""
    flat, pixel = field.flat, field.pixel_nm
    wave = [np.exp(-2j * np.pi * g[:, a, None] * pixel[a] * np.arange(flat.shape[a])) for a in (0, 1)]
    return np.asarray(((wave[0] @ (flat * _window(flat.shape))) * wave[1]).sum(1))


def blurred(image: Floats, sigma_px: Floats) -> Floats:
    """Gaussian blur of an image mirrored at its borders, at a cost that does not depend on its width."""
    passed = [np.exp(-0.5 * (np.pi * np.arange(n) / n * s) ** 2) for n, s in zip(image.shape, sigma_px, strict=True)]
    return np.asarray(idctn(dctn(image) * np.multiply.outer(*passed)))


def _window(shape: tuple[int, ...]) -> Floats:
    return np.asarray(np.hanning(shape[0])[:, None] * np.hanning(shape[1]))


def _search(field: Field, crystal: Crystal, hk: Floats, scales: tuple[float, float]) -> list[Floats]:
    """Rows a1, a2 of the scales and rotations at which all reflections together are strongest, best first."""
    cut = field.flat[:_SIDE_PX, :_SIDE_PX]
    sides = [next_fast_len(2 * n, real=True) for n in cut.shape]
    power = gaussian_filter(np.abs(fft2(cut * _window(cut.shape), sides)) ** 2, 1, mode="wrap")
    fy, fx = (fftfreq(n, d) for n, d in zip(sides, field.pixel_nm, strict=True))
    ring = (np.hypot(fy[:, None], fx) / (2 * max(fy[1], fx[1]))).astype(int)
    power = over_rings(power, ring) * np.log(2)  # of noise alone the mean is 1 now
    scale = np.exp(np.arange(np.log(scales[0]), np.log(scales[1]), 0.006))
    turn = np.deg2rad(np.arange(0, 60, 0.75))
    turned = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]).transpose(2, 0, 1)
    g = (hk @ np.linalg.inv(crystal.vectors_nm).T) @ turned  # (turn, reflection, 2)
    at = g[None] / scale[:, None, None, None] * field.pixel_nm * sides
    inside = (np.abs(at) < np.array(sides) / 2).all(-1)
    score = np.log(map_coordinates(power, np.moveaxis(at, -1, 0), order=1, mode="grid-wrap") + 0.3)
    total = np.where(inside, score, 0.0).sum(-1)
    peak = (maximum_filter(total, (5, 5), mode=("nearest", "wrap")) == total).nonzero()
    best = np.argsort(-total[peak])[:_CANDIDATES]
    return [crystal.vectors_nm @ turned[peak[1][k]] * scale[peak[0][k]] for k in best]


_SIDE_PX = 1024
