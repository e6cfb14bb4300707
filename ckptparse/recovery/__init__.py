"""What a broken checkpoint still gives: mending what the examination found damaged.

Recovery reads beside the strict reader and never loosens it. Its modules, from the ground up:

    images             lost tensors in any other bytes
    siblings           other checkpoints as evidence
    mend, recipe       how one payload is got back
    legacy             V1 files
    result, recover    what the caller gets
"""
