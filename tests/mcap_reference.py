"""Logs through the reference readers `mcap` and `mcap-protobuf-support`: no code of ours is involved."""

from mcap.reader import make_reader
from mcap_protobuf.decoder import DecoderFactory


def messages(log, topic):
    """The decoded messages of a topic, in order."""
    with open(log, "rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        return [message for _, _, _, message in reader.iter_decoded_messages(topics=[topic])]


def attachments(log):
    """Name → text."""
    with open(log, "rb") as file:
        return {a.name: a.data.decode() for a in make_reader(file).iter_attachments()}


def topics(log):
    """Topic → number of messages, as the summary says."""
    with open(log, "rb") as file:
        summary = make_reader(file).get_summary()
    counts = summary.statistics.channel_message_counts
    return {channel.topic: counts.get(i, 0) for i, channel in summary.channels.items()}
