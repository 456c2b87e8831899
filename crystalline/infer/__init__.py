"""Text from a trained model: sampling, beam search, batches, chat, perplexity, evaluation.

`loading` opens a model; its `scheduler` owns the decoder and works on jobs in passes, many at a
time; `engine` is the job that turns a prompt into a stream of text with the methods of `sampling`,
`beam` the one that looks for the likeliest text.  `batch` reads and writes files of prompts and
texts, `perplexity` scores a text, `evaluation` a set of prompts with answers, `chat` keeps a
transcript, `door` lets other threads in.  All of them know the model only as the `Decoder` of
`protocol`.
"""
