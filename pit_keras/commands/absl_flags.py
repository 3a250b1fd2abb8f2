"""What the commands and scripts with flags of absl share: parsing, help, completion."""

import sys
import textwrap

from absl import flags

_HELP = ("-h", "-help", "--help", "--helpshort", "--helpfull")


def parse_flags(argv, values=flags.FLAGS):
    """`values(argv)`, whose `absl.flags.Error`s are one readable sentence."""
    try:
        return values(argv)
    except flags.Error as error:
        message = " ".join(str(error).removeprefix("flag ").split())
    if "must have a value" in message:
        message = f"{message.partition('=')[0]} must be given; --help lists all flags."
    for reason, form in (
        ("invalid literal", "a whole number"),
        ("could not convert", "a number"),
        ("('Non-boolean", "true or false"),
    ):
        flag, found, _ = message.partition(f": {reason}")
        if found:
            name, _, text = flag.partition("=")
            message = f"{name} must be {form}; got {text!r}."
    raise flags.Error(message)


def parse_or_exit(argv, parse=parse_flags):
    """The `flags_parser` of `absl.app.run`: a mistake ends the program with one sentence."""
    try:
        return parse(argv)
    except flags.Error as error:
        sys.exit(f"error: {error}")


def parser_with_help(help_text, parse=parse_flags):
    """The same for a command whose `help_text()` is printed where it is asked for."""

    def parse_or_help(argv):
        if set(argv[1:]) & set(_HELP):
            print(help_text())
            sys.exit(0)
        return parse_or_exit(argv, parse)

    return parse_or_help


def flag_lines(shown, required=()):
    """The part of a help that lists flags; the names of some are `required`."""
    lines = ["Flags:"]
    for flag in shown:
        note = "" if flag.default is None else f" (default {flag.default_as_str[1:-1]})"
        note = " (required)" if flag.name in required else note
        lines += [f"  --{flag.name}", textwrap.indent(textwrap.fill(flag.help + note, 78), " " * 6)]
    return lines


def offer_flags(command, shown):
    """Adds flags to an argparse parser, for a shell's completion."""
    for flag in shown:
        command.add_argument(f"--{flag.name}", choices=getattr(flag.parser, "enum_values", None))


def image_size_of(sides):
    """Height and width from the one or two sides that --image_size lists."""
    if len(sides) not in (1, 2) or not all(side.isdigit() for side in sides):
        raise ValueError(
            f"--image_size must be one side or height,width in pixels; got {','.join(sides)!r}."
        )
    return tuple(int(side) for side in (*sides, *sides)[:2])


def numbers_of(flag, texts):
    """The numbers that a flag lists, as a tuple."""
    try:
        return tuple(float(text) for text in texts)
    except ValueError:
        raise ValueError(
            f"--{flag} must be numbers with commas between; got {','.join(texts)!r}."
        ) from None
