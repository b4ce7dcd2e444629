//! `parity.safetensors`: recorded tensors, read with caps and checks.

use safetensors::{Dtype, SafeTensors};

use crate::bundle::Bundle;
use crate::parity::ParityError;
use crate::text::shown;

/// Longest header of `parity.safetensors`, bytes.
const HEADER_CAP: u64 = 1 << 20;

/// The recorded tensors of a bundle.
#[derive(Debug)]
pub struct Vectors<'a> {
    file: SafeTensors<'a>,
}

/// One recorded tensor; every number is finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Shape.
    pub shape: Vec<usize>,
    /// Numbers, row by row.
    pub data: Vec<f32>,
}

impl<'a> Vectors<'a> {
    /// Opens the file that the manifest names.
    ///
    /// # Errors
    /// [`ParityError::NoVectors`], [`ParityError::File`].
    pub fn open(bundle: &'a Bundle) -> Result<Self, ParityError> {
        let spec = bundle.manifest().parity.as_ref().ok_or(ParityError::NoVectors)?;
        let bytes = bundle.entry(&spec.file).ok_or(ParityError::NoVectors)?;
        let header = bytes.first_chunk().map_or(u64::MAX, |head| u64::from_le_bytes(*head));
        if header > HEADER_CAP {
            return Err(ParityError::File(format!("a header of {header} bytes, more than {HEADER_CAP}")));
        }
        let file = SafeTensors::deserialize(bytes).map_err(|e| ParityError::File(shown(&e.to_string())))?;
        Ok(Self { file })
    }

    /// Names of all tensors.
    pub fn names(&self) -> Vec<&str> {
        self.file.names()
    }

    /// A tensor, if it is there.
    ///
    /// # Errors
    /// [`ParityError::Tensor`] for another type than F32 and numbers that are not finite.
    pub fn tensor(&self, name: &str) -> Result<Option<Recorded>, ParityError> {
        let Ok(view) = self.file.tensor(name) else { return Ok(None) };
        let bad = |why: String| ParityError::Tensor { tensor: name.to_owned(), why };
        if view.dtype() != Dtype::F32 {
            return Err(bad(format!("has the type {:?}, not F32", view.dtype())));
        }
        let data: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        if let Some(i) = data.iter().position(|x| !x.is_finite()) {
            return Err(bad(format!("is {} at element {i}", data[i])));
        }
        Ok(Some(Recorded { shape: view.shape().to_vec(), data }))
    }

    /// A tensor that must be there, of `lead` followed by dimensions that hold `each` numbers.
    ///
    /// # Errors
    /// As for [`tensor`](Self::tensor), and [`ParityError::Missing`].
    pub fn shaped(&self, name: &str, lead: &[usize], each: usize) -> Result<Recorded, ParityError> {
        let v = self.tensor(name)?.ok_or_else(|| ParityError::Missing(name.to_owned()))?;
        let count = lead.iter().try_fold(each, |n, &d| n.checked_mul(d));
        if !v.shape.starts_with(lead) || count != Some(v.data.len()) {
            let why = format!("has the shape {:?}, but {lead:?} and then {each} numbers are needed", v.shape);
            return Err(ParityError::Tensor { tensor: name.to_owned(), why });
        }
        Ok(v)
    }
}
