"""Silicon in graphene: bonds make the class, and a table of lengths and angles says how it sits."""

import napari_defects as nd
from napari_defects.bonds import angle_table, bond_table

image, _ = nd.simulate(
    "graphene",
    field_of_view_nm=5.0,
    pixel_size_nm=0.012,
    defects={"Si1C3": 2, "Si1C4": 1},
    microscope=nd.Microscope(60.0, 31.0, 86.0, 200.0, source_fwhm_nm=0.06),
    dose_e_per_A2=5e6,
    seed=4,
)
atoms = nd.locate(image)
sites = nd.assign_sites(atoms, nd.fit_lattice(atoms, "graphene"))
defects = nd.classify(image, sites, method="bonds")
graph = nd.bond_graph(atoms)

print(defects[["species", "y_nm", "x_nm", "probability"]])
print(bond_table(graph).describe())
print(angle_table(graph).describe())
