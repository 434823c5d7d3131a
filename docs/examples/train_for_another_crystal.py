"""A network for a crystal without shipped weights, from simulated images alone: here a few steps, not thousands."""

import napari_defects as nd

pairs = nd.training_pairs("hBN", n=6, shape=(128, 128), seed=0)
model = nd.train(
    pairs,
    classes=("background", "B", "N", "V_B", "V_N"),
    options=nd.Training(crystal="hBN", pixel_size_nm=0.015, steps=4, images=4, held_back=2, channels=16),
)
model.save("hbn.safetensors")
image, _ = nd.simulate("hBN", field_of_view_nm=3.0)
maps = nd.predict(image, nd.load_model("hbn.safetensors"))
print(maps.classes, maps.data.shape)
