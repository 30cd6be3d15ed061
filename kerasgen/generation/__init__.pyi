# The public names of kerasgen.generation, and where each lives.

from kerasgen.generation.api import (
    GeneratedText as GeneratedText,
    decode as decode,
    generate as generate,
    generate_ids as generate_ids,
    stream as stream,
)
from kerasgen.generation.batches import (
    Continuation as Continuation,
    PromptOffset as PromptOffset,
)
from kerasgen.generation.engine import (
    Engine as Engine,
    Session as Session,
)
