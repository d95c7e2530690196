"""Text Generation Inference's native API (https://huggingface.github.io/text-generation-inference/).

`/generate` answers with one document and `/generate_stream` with events of the same shape. Both are claimed without a
prefix only, as the words are common (Ollama has `/api/generate`, Triton `/v2/models/NAME/generate`), and `/`, which
does either, is not claimed at all. Counts are in `details`, which a request has to ask for. A whole answer always has
them in its headers as well; a stream without `details` has none (`generate_internal` and `generate_stream_internal` in
https://github.com/huggingface/text-generation-inference/blob/main/router/src/server.rs). No model is named: a server
has one, and a request may choose an adapter to it. `/v1` is OpenAI's.
"""

from __future__ import annotations

from extproc.core.format import Format

FORMAT = Format(
    provider="tgi",
    api="generate",
    operation="text_completion",
    path=r"/generate(?:_stream)?/?",
    request_model=("parameters.adapter_id",),
    usage={
        "input_tokens": (("details.input_length", "@x-prompt-tokens"),),
        # With best_of, the sequences that were not the best were written too, and are counted nowhere else.
        "output_tokens": (
            ("details.generated_tokens", "@x-generated-tokens"),
            ("details.best_of_sequences[].generated_tokens",),
        ),
    },
    content=("token.text",),
    finish=("details.finish_reason",),
    last=(("generated_text", None),),
)
