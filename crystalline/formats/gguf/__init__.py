"""GGUF, the file format of llama.cpp: models of every architecture known here, in and out.

    container    values and tensors as they lie in the file, checked before they are believed
    blocks       number formats: f32, f16, bf16, q8_0 and q4_0 both ways, some more to read
    names        tensors: names, orientation and order of rows, against Hugging Face's files
    shape        the shape of a model in the file's values
    vocabulary   tokenizer.json in the file's values, and back; `sentencepiece` for that kind
    model        `read_gguf`
    export       `write_gguf`

The description of the format is ggml's (docs/gguf.md); where it is silent, what llama.cpp reads.
"""

from crystalline.formats.gguf.blocks import BlockType
from crystalline.formats.gguf.export import GgufType, Progress, write_gguf
from crystalline.formats.gguf.model import Blocks, GgufModel, read_gguf
from crystalline.formats.gguf.vocabulary import SpecialTokens, Vocabulary

__all__ = [
    "BlockType",
    "Blocks",
    "GgufModel",
    "GgufType",
    "Progress",
    "SpecialTokens",
    "Vocabulary",
    "read_gguf",
    "write_gguf",
]
