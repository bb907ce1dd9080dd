"""The service: an API over HTTP and a web page, behind one bounded door to painting. Needs the extra ``scumble[serve]``."""
