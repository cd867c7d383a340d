"""What the encoder is for: fine-tuning on labelled text."""
