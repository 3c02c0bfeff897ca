//! What requests and answers hold, in the log.
//!
//! Only here are messages seen between the bytes and the handlers, so no handler has to log what it got. The messages'
//! `Debug`, written by the build, leaves out every field that the specification marks as a secret.

use std::fmt::Debug;
use std::marker::PhantomData;

use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// The target of these lines, which are logged from `--v=8` on.
const TARGET: &str = "kuration::rpc::contents";

/// Protocol buffers, and a line at the level trace for each message. Named in build.rs as the codec of all services.
#[derive(Debug)]
pub struct Codec<Out, In>(PhantomData<(Out, In)>);

impl<Out, In> Default for Codec<Out, In> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Out, In> tonic::codec::Codec for Codec<Out, In>
where
    Out: prost::Message + Debug + Send + 'static,
    In: prost::Message + Debug + Default + Send + 'static,
{
    type Encode = Out;
    type Decode = In;
    type Encoder = Told<ProstEncoder<Out>>;
    type Decoder = Told<ProstDecoder<In>>;

    fn encoder(&mut self) -> Self::Encoder {
        Told(ProstCodec::<Out, In>::raw_encoder(BufferSettings::default()))
    }

    fn decoder(&mut self) -> Self::Decoder {
        Told(ProstCodec::<Out, In>::raw_decoder(BufferSettings::default()))
    }
}

/// An encoder or decoder that tells what passes through it.
#[derive(Debug)]
pub struct Told<C>(C);

impl<C: Encoder<Item: Debug, Error = Status>> Encoder for Told<C> {
    type Item = C::Item;
    type Error = Status;

    fn encode(&mut self, item: Self::Item, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        tracing::trace!(target: TARGET, sent = ?item);
        self.0.encode(item, buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

impl<C: Decoder<Item: Debug, Error = Status>> Decoder for Told<C> {
    type Item = C::Item;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let item = self.0.decode(buffer)?;
        if let Some(item) = &item {
            tracing::trace!(target: TARGET, received = ?item);
        }
        Ok(item)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}
