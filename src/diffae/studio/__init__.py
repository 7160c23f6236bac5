"""The web page: the public API behind sliders. Everything is served from this machine."""
