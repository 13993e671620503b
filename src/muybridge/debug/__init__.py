"""Finding out what goes wrong inside a network, from outside it."""

from muybridge.debug.anomaly import first_anomalous_module

__all__ = ["first_anomalous_module"]
