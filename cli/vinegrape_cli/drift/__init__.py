"""`vinegrape drift`: compare the images of a folder with a model's reference."""
