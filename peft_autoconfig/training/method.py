"""A method as text: what tells one training from another, and what one process tells another.

Imports `pretrained`; imported by `training` and `front`.
"""

import json

from peft import PeftConfig

from .pretrained import Method

__all__ = ["method_of", "method_text"]


def method_text(method: Method) -> str:
    """Returns text that is the same for equal methods only."""
    if isinstance(method, str):
        return method
    fields = {k: sorted(v) if isinstance(v, set) else v for k, v in method.to_dict().items()}
    return json.dumps(fields, sort_keys=True, default=str)


def method_of(text: str) -> Method:
    """Returns the method whose text is ``text``."""
    if not text.startswith("{"):
        return text  # type: ignore[return-value]
    config: PeftConfig = PeftConfig.from_peft_type(  # type: ignore[no-untyped-call]
        **json.loads(text)
    )
    return config
