"""ONNX as a derivative of the native model: made from it, and refused where it does not say the same."""
