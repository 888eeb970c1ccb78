"""Scripts that measure speed and quality, some of them beside other projects."""
