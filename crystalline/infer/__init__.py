"""Text from a trained model: sampling, beam search, chat, perplexity.

`loading` opens a model; `engine` turns a prompt into a stream of text with the
methods of `sampling`, `beam` looks for the likeliest text, `perplexity` scores
a text, `chat` keeps a transcript.  All of them know the model only as the
`Decoder` of `protocol`.
"""
