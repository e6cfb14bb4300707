"""Get back what a damaged checkpoint still gives: mend what the examination found damaged.

Recovery has a reader of its own. The strict reader is not loosened for it. The modules:

    recipe, mended     how one payload is got back, and what is known of it then
    images             lost tensors in disk images and other files
    siblings           other checkpoints as evidence
    expectations       numbers that something else than the checksum says
    matches            bytes elsewhere that have the checksum
    inferences         bytes that follow from the checksum; string_flips: of strings
    mend               all of these, the surest first
    offering           bytes without proof, with what looks wrong in them
    result, recover    what the caller gets
    evidence, rebuild  files of any kind; a lost index built again
    conversions, returns, stripes, statistics
                       conversions of text and stripes undone; pieces that look wrong
"""
