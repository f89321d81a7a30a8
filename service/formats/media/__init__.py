"""Files of images and sound: recognised, checked once, decoded where they are needed."""
