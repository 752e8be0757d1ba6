"""Images: what is here (`catalog`), how it comes (`pull`, `load`), how it goes (`removal`), and the API.

An image is complete or it is not there: its layers, then its record, then its names are written, and
taken away the other way round. `service` puts the room together; `routes` is Docker's API over it.
"""

from engine.images.service import ImageService

__all__ = ["ImageService"]
