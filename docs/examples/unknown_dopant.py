"""A dopant nobody told the program about surfaces as a column of the wrong intensity."""

import napari_defects as nd

image, truth = nd.simulate("WSe2", field_of_view_nm=8.0, defects={"Ti_W": 0.03, "V_Se": 0.01}, seed=2)
atoms = nd.locate(image)
sites = nd.assign_sites(atoms, nd.fit_lattice(atoms, "WSe2"))
defects = nd.classify(image, sites, method="intensities")

print(image.metadata["defects"].species.value_counts().to_string())
print(nd.count(defects, sites)[["species", "count", "fraction_low", "fraction_high"]])
