"""Conversion of networks from and to other formats: Hugging Face and ONNX."""
