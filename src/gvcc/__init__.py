"""gvcc: a video codec whose decoder is a generative model."""
