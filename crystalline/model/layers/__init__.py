"""The layers of a transformer as plain functions, each forward and backward, for any rows.

What a layer is stands in a struct of `layers/table.pxd`: sizes, where its weights are, and which of
its variants it computes.  What lives from forward to backward, and what is shared by all layers,
stands in one table of buffers, `layers/buffers.pyx`.  Each file here has one subject: `linear`,
`norm`, `attention`, `mlp`, `head`; `bind` fills the structs.  The order of layers is in
`crystalline/model/transformer.pyx`.
"""
