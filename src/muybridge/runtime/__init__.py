"""What is done to any pipeline from outside: made faster or smaller, and measured against the plain run."""

from muybridge.runtime.optimize import OptimizationReport, optimize
from muybridge.runtime.options import OPTIMIZATIONS, Optimization

__all__ = ["OPTIMIZATIONS", "Optimization", "OptimizationReport", "optimize"]
