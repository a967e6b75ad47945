"""TensorFlow's C interface by ctypes: how programs without Python load a SavedModel.

TensorFlow Serving loads a model in the same way: the graph and a session of the meta
graph tagged "serve", then tensors fed and fetched by the names its signatures give.
"""

import ctypes
import pathlib

import numpy as np
import tensorflow as tf

_DTYPES = {np.dtype(np.float32): 1, np.dtype(np.int64): 9}  # TF_DataType
_NUMPY = {number: dtype for dtype, number in _DTYPES.items()}
_STRING, _STRING_BYTES = 7, 24  # TF_STRING, and a TF_TString
_GIVE_POINTERS = (
    "TF_NewStatus",
    "TF_NewGraph",
    "TF_NewSessionOptions",
    "TF_LoadSessionFromSavedModel",
    "TF_GraphOperationByName",
    "TF_AllocateTensor",
    "TF_TensorData",
)
_POINTER, _TEXT = ctypes.c_void_p, ctypes.c_char_p


class _Output(ctypes.Structure):  # TF_Output
    _fields_ = (("operation", _POINTER), ("index", ctypes.c_int))


class _Buffer(ctypes.Structure):  # TF_Buffer
    _fields_ = (
        ("data", _POINTER),
        ("length", ctypes.c_size_t),
        ("deallocator", _POINTER),
    )


def _library():
    path = pathlib.Path(tf.sysconfig.get_lib()) / "libtensorflow_cc.so.2"
    library = ctypes.CDLL(str(path))
    for name in _GIVE_POINTERS:
        getattr(library, name).restype = _POINTER
    library.TF_NewBuffer.restype = ctypes.POINTER(_Buffer)
    library.TF_Message.restype = _TEXT
    library.TF_Dim.restype = ctypes.c_int64
    return library


class CModel:
    """A SavedModel in a session of TensorFlow's C interface.

    Args:
      path: of the SavedModel.

    Raises:
      RuntimeError: with TensorFlow's own message.
    """

    def __init__(self, path):
        self._library = _library()
        self._status = _POINTER(self._library.TF_NewStatus())
        self._graph = _POINTER(self._library.TF_NewGraph())
        meta, tags = self._library.TF_NewBuffer(), (_TEXT * 1)(b"serve")
        self._session = _POINTER(
            self._library.TF_LoadSessionFromSavedModel(
                _POINTER(self._library.TF_NewSessionOptions()),
                None,
                str(path).encode(),
                tags,
                1,
                self._graph,
                meta,
                self._status,
            )
        )
        self._check()
        content = ctypes.string_at(meta.contents.data, meta.contents.length)
        self._signatures = tf.compat.v1.MetaGraphDef.FromString(content).signature_def

    def __call__(self, signature: str, inputs: dict) -> dict[str, np.ndarray]:
        """Runs a signature; errors as in the constructor."""
        infos = self._signatures[signature]
        fed = [self._output(infos.inputs[name].name) for name in inputs]
        values = [self._tensor(value) for value in inputs.values()]
        names = sorted(infos.outputs)
        fetched = [self._output(infos.outputs[name].name) for name in names]
        answers = (_POINTER * len(names))()
        self._library.TF_SessionRun(
            self._session,
            None,
            (_Output * len(fed))(*fed),
            (_POINTER * len(values))(*values),
            len(fed),
            (_Output * len(fetched))(*fetched),
            answers,
            len(fetched),
            None,
            0,
            None,
            self._status,
        )
        self._check()
        return {name: self._array(_POINTER(a)) for name, a in zip(names, answers)}

    def _check(self):
        if self._library.TF_GetCode(self._status):
            raise RuntimeError(self._library.TF_Message(self._status).decode())

    def _output(self, name):
        operation, _, index = name.partition(":")
        found = self._library.TF_GraphOperationByName(self._graph, operation.encode())
        return _Output(found, int(index))

    def _strings(self, value):
        sizes = (ctypes.c_int64 * value.ndim)(*value.shape)
        size = ctypes.c_size_t(_STRING_BYTES * value.size)
        tensor = self._library.TF_AllocateTensor(_STRING, sizes, value.ndim, size)
        address = self._library.TF_TensorData(_POINTER(tensor))
        for i, text in enumerate(value.ravel().tolist()):
            place = _POINTER(address + _STRING_BYTES * i)
            self._library.TF_StringInit(place)
            self._library.TF_StringCopy(place, text, ctypes.c_size_t(len(text)))
        return tensor

    def _tensor(self, value):
        value = np.asarray(value, order="C")
        if value.dtype.kind == "O":
            return self._strings(value)
        sizes = (ctypes.c_int64 * value.ndim)(*value.shape)
        tensor = self._library.TF_AllocateTensor(
            _DTYPES[value.dtype], sizes, value.ndim, ctypes.c_size_t(value.nbytes)
        )
        to = self._library.TF_TensorData(_POINTER(tensor))
        ctypes.memmove(to, value.ctypes.data, value.nbytes)
        return tensor

    def _array(self, tensor):
        rank = self._library.TF_NumDims(tensor)
        shape = [self._library.TF_Dim(tensor, i) for i in range(rank)]
        dtype = _NUMPY[self._library.TF_TensorType(tensor)]
        count = int(np.prod(shape))
        address = self._library.TF_TensorData(tensor)
        content = ctypes.string_at(address, count * dtype.itemsize)
        return np.frombuffer(content, dtype).reshape(shape)
