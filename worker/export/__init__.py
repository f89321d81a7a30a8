"""What a job gives out: folders, ONNX files, documents."""
