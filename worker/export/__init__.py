"""Exports of the student: a folder that its library loads, and ONNX files."""
