"""Recognises files of other programs, and gives the Python that converts them.

They are recognised by first bytes or names. Nothing else is read, and nothing is run.
NumPy is not imported, because the command line imports this module and NumPy takes a
tenth of a second.
"""

import io
import os
import pickletools
import re
import warnings
from typing import Any, BinaryIO, NamedTuple

HEAD_BYTES = 512  # a tar file says so at byte 257
_TAIL_BYTES = 16
SPLIT_WORDS = {"base": "train", "valid": "val", "validation": "val", "novel": "test"}
_FEATURES = ("X", "x", "features", "feats", "feat", "data", "vectors", "arr_0")
_LABELS = ("y", "Y", "labels", "label", "targets", "target", "classes", "arr_1")
# Other names of features and of labels.
FIELDS = _FEATURES, _LABELS
_OWN_NAMES = "Put the file's own names in place of X and y."
_PAIR = 'np.savez({out}, embeddings=np.float32(d["X"]), labels=d["y"])'
_FRAME = (
    'np.savez({out}, embeddings=np.float32(d.drop(columns="y")), '
    'labels=d["y"].to_numpy(str))'
)
_FRAME_NOTE = "Put the name of the class's column in place of y."
_UNPACK = "Unpack it, and give what is in it."


class _Kind(NamedTuple):
    """A kind of foreign file: its first bytes or suffixes, and how to convert it."""

    name: str
    start: bytes  # a regular expression; never matches if the suffix decides
    suffixes: tuple[str, ...]
    note: str  # advice in words
    imports: str = ""
    code: str = ""  # Python with {path} and {out}


_KINDS = (
    _Kind(
        "a Git LFS pointer instead of the file",
        rb"version https://git-lfs",
        (),
        "`git lfs pull` fetches the file itself.",
    ),
    _Kind(
        "a web page instead of the file",
        rb"\s*<(?i:!doctype|html|\?xml)",
        (".html",),
        "Download it again in a browser, which may ask for confirmation.",
    ),
    _Kind(
        "a compressed file or an archive",
        rb"\x1f\x8b|BZh\d|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|.{257}ustar",
        (".gz", ".bz2", ".xz", ".tar"),
        _UNPACK,
    ),
    _Kind(
        "a file of PyTorch",
        rb"PK\x03\x04.{26}[^/]*/(data\.pkl|\.format|byteorder)|"
        rb"\x80.\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19",
        (".pt", ".pth"),
        _OWN_NAMES,
        "torch",
        'd = torch.load({path}, map_location="cpu", weights_only=True); ' + _PAIR,
    ),
    _Kind(
        "a file of MATLAB 7.3",
        rb"MATLAB 7\.3",
        (),
        _OWN_NAMES,
        "h5py",
        "d = h5py.File({path}); np.savez({out}, "
        'embeddings=np.float32(d["X"]).T, labels=np.array(d["y"]).ravel())',
    ),
    _Kind(
        "a file of MATLAB",
        rb"MATLAB ",
        (".mat",),
        _OWN_NAMES,
        "scipy.io",
        "d = scipy.io.loadmat({path}); np.savez({out}, "
        'embeddings=np.float32(d["X"]), labels=d["y"].ravel())',
    ),
    _Kind(
        "an HDF5 file",
        rb"\x89HDF",
        (".h5", ".hdf5"),
        _OWN_NAMES,
        "h5py",
        "d = h5py.File({path}); np.savez({out}, "
        'embeddings=np.float32(d["X"]), labels=np.array(d["y"]).astype(str))',
    ),
    _Kind(
        "a Parquet file",
        rb"PAR1",
        (".parquet",),
        _FRAME_NOTE,
        "pandas",
        f"d = pandas.read_parquet({{path}}); {_FRAME}",
    ),
    _Kind(
        "an ARFF file",
        rb"(?i:(%[^\n]*\n|\s)*@relation)",
        (".arff",),
        "Put the name of the class's attribute in place of y.",
        "scipy.io.arff",
        "d, m = scipy.io.arff.loadarff({path}); np.savez({out}, "
        'embeddings=np.float32([d[n] for n in m.names() if n != "y"]).T, '
        'labels=d["y"].astype(str))',
    ),
    _Kind(
        "a JSON file",
        rb"\s*[\[{]",
        (".json",),
        _OWN_NAMES,
        "json",
        f"d = json.load(open({{path}})); {_PAIR}",
    ),
)
_CLASSES = (
    "np.savez({out}, embeddings=np.concatenate(list(d.values())), "
    "labels=np.repeat(list(d), [len(v) for v in d.values()]))"
)
_TRUST = "Only if you trust the file: it can run any code."
# Opcodes without information about the content, by their names in `pickletools`.
_SILENT = ("PROTO", "FRAME", "MARK", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT")
_PAIR_END = rb"(?:\x86|t)(?:\x94|q.|r.{4}|p\d+\n)?\.\Z"


def kind_of(head: bytes, path: str) -> tuple[str, str] | None:
    """Returns the kind of a foreign file and the next step; None if unknown.

    Args:
      head: its first `HEAD_BYTES`, of a file that is no TFRecord.
      path: its path, for the lines to paste.
    """
    found = [k for k in _KINDS if re.match(k.start, head, re.DOTALL)]
    if not found and not head.startswith((b"PK", b"\x80")):  # not one of our formats
        found = [k for k in _KINDS if path.lower().endswith(k.suffixes)]
    if not found:
        return None
    name, _, _, note, imports, code = found[0]
    return name, _advice(note, imports, code, path=path)


def pickle_advice(file: BinaryIO | io.BufferedIOBase, path: str) -> str:
    """Returns Python that converts a foreign pickle to .npz; "" if unknown.

    Nothing is unpickled. The first and last bytes distinguish dicts, pairs and frames.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    opening = _opening(file.read(HEAD_BYTES))
    file.seek(max(0, size - _TAIL_BYTES))
    is_pair = re.search(_PAIR_END, file.read(), re.DOTALL) is not None
    note, code = _of_pickle(opening, is_pair)
    if not code:
        return ""
    imports = "joblib" if "joblib" in str(opening) else "pickle"
    source = "{path}" if imports == "joblib" else 'open({path}, "rb")'
    if path.endswith("_embeddings.pkl"):  # it would be found first
        note = f"{note} Move the old file away then.".strip()
    code = f"d = {imports}.load({source}); {code}"
    return _advice(f"{note} {_TRUST}".strip(), imports, code, path=path)


def _opening(head: bytes) -> list[tuple[str, Any]]:
    """Returns the first opcodes of a pickle with their arguments. Nothing is run."""
    found = []
    try:
        with warnings.catch_warnings():  # about escapes in damaged text
            warnings.simplefilter("ignore")
            for opcode, argument, _ in pickletools.genops(head):
                if opcode.name not in _SILENT:
                    found.append((opcode.name, argument))
    except ValueError:  # the end of the head, most likely
        pass
    return found


def _of_pickle(opening: list[tuple[str, Any]], is_pair: bool) -> tuple[str, str]:
    """Returns a note and the code that saves `d`, or two empty texts."""
    words, first = str(opening), opening[0][0] if opening else ""
    if "pandas" in words:
        return _FRAME_NOTE, _FRAME
    if "defaultdict" in words:
        return "", _CLASSES
    if first in ("EMPTY_DICT", "DICT") or "OrderedDict" in words:
        keys = [argument for name, argument in opening if argument is not None]
        keys = [k for k in keys if "OrderedDict" not in str(k) and k != "collections"]
        if not keys or keys[0] in ("embeddings", "keys"):
            return "", ""  # a damaged pickle of the release
        named = keys[0] in (*_FEATURES, *_LABELS)
        return _pair_of(keys) if named else ("", _CLASSES)
    if is_pair:
        return "", "np.savez({out}, embeddings=np.float32(d[0]), labels=d[1])"
    if "numpy" in words:
        note = "y is the class of each row; of a list [X, y], take d[0] and d[1]."
        return note, "np.savez({out}, embeddings=np.float32(d), labels=y)"
    return "", ""


def _pair_of(names: list[Any]) -> tuple[str, str]:
    """Returns a note and the code that saves the two arrays we want."""
    x = next((n for n in ("embeddings", *_FEATURES) if n in names), "X")
    y = next((n for n in ("labels", *_LABELS) if n in names), "y")
    note = "" if x in names and y in names else _OWN_NAMES
    return note, _PAIR.replace('"X"', f'"{x}"').replace('"y"', f'"{y}"')


def npz_advice(path: str, names: list[str]) -> str:
    """Returns Python that renames the arrays of an .npz file to our names."""
    note, code = _pair_of(names)
    return _advice(note, "", f"d = np.load({{path}}); {code}", path=path)


def rewrite_advice(path: str, name: str, change: str, trust: bool = False) -> str:
    """Returns Python that rewrites an .npz file with one array changed."""
    allow = ", allow_pickle=True" if trust else ""
    code = f"d = dict(np.load({{path}}{allow})); d[{{name}}] = d[{{name}}]{change}; "
    code += "np.savez({path}, **d)"
    return _advice(_TRUST if trust else "", "", code, path=path, name=name)


def resave_advice(path: str, change: str, trust: bool = False) -> str:
    """Returns Python that rewrites an .npy file with its array changed."""
    allow = ", allow_pickle=True" if trust else ""
    code = f"np.save({{path}}, np.load({{path}}{allow}){change})"
    return _advice(_TRUST if trust else "", "", code, path=path)


def npz_name(path: str) -> str:
    """Returns the .npz name for a foreign file, by its split if its name has one."""
    directory, name = os.path.split(path)
    stem = name.split(".")[0] or name
    word = re.split(r"[^A-Za-z]", stem)[0].lower()
    word = SPLIT_WORDS.get(word, word)
    stem = word if word in ("train", "val", "test") else stem
    return os.path.join(directory, f"{stem}.npz")


def _advice(note: str, imports: str, code: str, **texts: str) -> str:
    """Returns the note followed by the code, so that the code can be copied."""
    if not code:
        return note
    imports = f"import {imports}, numpy as np" if imports else "import numpy as np"
    texts.setdefault("out", npz_name(texts["path"]))
    code = code.format(**{name: ascii(text) for name, text in texts.items()})
    return f"{note} In Python: {imports}; {code}".strip()
