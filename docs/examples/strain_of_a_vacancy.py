"""A planted displacement field, averaged out of the noise and fitted with an elastic inclusion.

The fields of neighbouring vacancies, which overlap, are taken apart.
"""

import napari_defects as nd
from napari_defects.simulation import Relaxation

image, _ = nd.simulate(
    "WSe2",
    field_of_view_nm=18.0,
    defects={"V_Se": 0.008},
    relaxation={"V_Se": Relaxation(amplitude_pm=-6.0)},  # the nearest tungsten moves inwards by 6 pm
    dose_e_per_A2=1.3e5,
    seed=5,
)
atoms = nd.locate(image)
sites = nd.assign_sites(atoms, nd.fit_lattice(atoms, "WSe2"))
defects = nd.classify(image, sites, method="intensities")
vacancy = nd.average(image, defects, sites=sites, species=["V_Se"], symmetrize=True)["V_Se"]
fit = nd.fit_eshelby(vacancy.strain(), exclude_nm=0.1, draws_pm=vacancy.draws())

print(f"{vacancy.n} vacancies averaged")
print(f"C = {1e3 * fit.c_nm2:.2f} ± {1e3 * fit.c_err_nm2:.2f} 10⁻³ nm², planted {-6.0 * 0.1895:.2f}")
print(f"oscillation: p = {fit.oscillation.p_value:.2g}")
