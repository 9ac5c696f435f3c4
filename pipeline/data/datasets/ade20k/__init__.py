"""ADE20K, the scene parsing challenge's 150 classes."""
