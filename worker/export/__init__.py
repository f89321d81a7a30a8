"""The student in the forms that a job gives out: a folder that its library loads, ONNX files."""
