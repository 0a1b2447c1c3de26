"""Networks of other programs in and out: Hugging Face and ONNX."""
