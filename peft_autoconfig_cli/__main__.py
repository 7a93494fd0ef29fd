"""`python -m peft_autoconfig_cli`, the same as `peft-autoconfig`."""

from .app import main

main()
