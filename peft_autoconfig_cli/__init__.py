"""The command `peft-autoconfig`: reads flags and files, calls the library, prints.

It stands beside the package rather than in it, since importing `peft_autoconfig` imports torch and
PEFT, which takes seconds, and help or a Tab key should not wait for that. So nothing here imports
the package before a command runs.

    app.py          the commands, what they are told and what they print
    options.py      the options that several commands share: a `Recipe`, flag by flag
    output.py       JSON or tables on stdout, errors as one line and an exit code
"""
