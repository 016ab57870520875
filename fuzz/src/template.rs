//! The chat templates of model files.

use crate::text::{tokenizers, vocabulary};
use image_builder::template::ModelTemplate;
use inference::gguf::File;

/// The template of a model file: frames or an error, in bounded time.
pub fn run(data: &[u8]) {
    let file = vocabulary(Some(&String::from_utf8_lossy(data)));
    let file = File::parse(&file).expect("any text is a value");
    if let Ok(Some(template)) = ModelTemplate::from_gguf(&file, &tokenizers()[1])
        && let Ok(frames) = template.frames()
    {
        assert!(template.check(&frames).is_ok(), "the template disagrees with its own frames");
    }
}

/// Templates of the common shapes.
pub fn seeds() -> Vec<Vec<u8>> {
    [
        "{% for message in messages %}{{ '<|' + message.role + '|>' + message['content'] + '<|end|>\n' }}{% endfor %}\
         {% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
        "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{% set system = messages[0].content %}{% set rest = messages[1:] %}\
         {%- else -%}{% set rest = messages %}{%- endif -%}{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}\
         {{ raise_exception('in turns') }}{% endif %}{{ m.content | trim }}{{ eos_token }}{% endfor %}",
        "{% macro f(x) %}{{ x * 3 }}{% endmacro %}{{ f('ab') }}{{ range(9) | list }}{{ messages[0].content.split(' ')[0].strip() }}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
