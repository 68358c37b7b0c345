from tests.support.patience import patient

__all__ = ["patient"]
