"""A network for a crystal without shipped weights, from simulated images alone: here a few steps, not thousands."""

import napari_defects as nd

pairs = nd.training_pairs("MoSe2", n=6, shape=(128, 128), seed=0)
model = nd.train(
    pairs,
    classes=("background", "Mo", "Se2", "V_Se", "V2_Se", "V_Mo"),
    options=nd.Training(crystal="MoSe2", pixel_size_nm=0.02, steps=4, images=4, held_back=2, channels=16),
)
model.save("mose2.safetensors")
image, _ = nd.simulate("MoSe2", field_of_view_nm=3.0)
maps = nd.predict(image, nd.load_model("mose2.safetensors"))
print(maps.classes, maps.data.shape)
