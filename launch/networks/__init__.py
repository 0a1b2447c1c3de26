"""Networks on their way in and out: `perceiver import` and `export`, and the plan of a network that has no run.

a file of somebody else's --> imports --> network_folder --> what a run, eval and predict take
a run, or such a folder --> network_files --> Hugging Face with model_card, ONNX, network_folder
"""
