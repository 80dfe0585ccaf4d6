"""No test judges time: an example may take as long as a busy machine makes it."""

from hypothesis import settings

settings.register_profile("untimed", settings.default, deadline=None)
settings.load_profile("untimed")
