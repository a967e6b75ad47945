"""What `--help` prints."""

import textwrap

from leo_tf.cli.options import OPTIONS
from leo_tf.configs.presets import PRESETS

_INDENT = " " * 6


def help_text(program: str) -> str:
    """What `--help` prints: presets, then all options under headings."""
    lines = [f"usage: {program} [--name=value ...]", "", "Presets:"]
    width = max(map(len, PRESETS))
    for preset in PRESETS.values():
        lines.append(f"  {preset.name:{width}}  {preset.description}")
    lines += ["", "Defaults below are the original release's. A preset has its own;"]
    lines += ["without flags, the preset is glyphs."]
    groups = dict.fromkeys(option.group for option in OPTIONS.values() if option.group)
    for group in groups:
        lines += ["", f"{group}:"]
        members = [option for option in OPTIONS.values() if option.group == group]
        lines += [line for option in members for line in _option_help(option)]
    lines += ["", "--flagfile=FILE reads flags from a file, one a line."]
    return "\n".join(lines)


def _option_help(option) -> list[str]:
    is_boolean = option.rule.kind is bool
    name = f"  --[no]{option.name}" if is_boolean else f"  --{option.name}"
    facts = [] if is_boolean else [option.rule.expected]
    facts += option.facts
    facts += [f"with --mode={' or '.join(option.modes)}"] if option.modes else []
    facts += [o.help for o in OPTIONS.values() if o.target == option.name != o.name]
    text = f"{option.help} ({'; '.join(facts)})" if facts else option.help
    return [
        name,
        *textwrap.wrap(text, 80, initial_indent=_INDENT, subsequent_indent=_INDENT),
    ]
