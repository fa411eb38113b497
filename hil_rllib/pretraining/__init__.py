"""Training the encoder to see: rendered scenes in, a ResNet10 trunk that tells cube and TCP apart out."""
