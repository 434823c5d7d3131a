"""A dopant that no network was told about: found, named, and taught; here in a few steps, not in ten minutes."""

import napari_defects as nd

image, truth = nd.simulate("WSe2", field_of_view_nm=7.0, pixel_size_nm=0.025, defects={"Ge_W": 20, "V_Se": 10}, seed=5)
atoms = nd.locate(image)
sites = nd.assign_sites(atoms, nd.fit_lattice(atoms, "WSe2"))

found = nd.discover(image, sites)
for cluster in found.clusters:
    height = f"{cluster.relative_height:.3f} ± {cluster.relative_height_err:.3f}"
    print(f"{cluster.n} columns on {cluster.sublattice}, of {height} of its height")

model = nd.learn(image, sites, found.named({0: "Ge_W"}), "wse2-te", steps=2, workers=0)
print(model.classes)
print(model.card["notes"][-1])
