//! From ONNX operators to operations: one file for each class of operators. A new class is a new file and a new line
//! in [`node`].

mod attention;
mod channel_norm;
mod constant;
mod conv;
mod elementwise;
mod fold;
mod linear;
mod norm;
mod operators;
mod pad;
mod recurrent;
mod shape;

use std::cell::RefCell;
use std::sync::Arc;

use crate::graph::{Builder, GraphError, ValueId, label};
use crate::onnx::{AttributeProto, NodeProto};
use crate::tensor::Tensor;

pub use operators::operators;

type Outputs = Result<Vec<ValueId>, GraphError>;

/// Lowers one node and names its outputs.
pub(crate) fn node(b: &mut Builder<'_>, proto: &NodeProto) -> Result<(), GraphError> {
    let name = label(proto);
    if !matches!(proto.domain.as_str(), "" | "ai.onnx") {
        let hint = match proto.domain.as_str() {
            "com.microsoft" => "; export without onnxruntime's offline optimiser",
            _ => "; only the default domain is",
        };
        let op = format!("{}.{}", proto.domain, proto.op_type);
        return Err(GraphError::Unsupported { node: name, op, hint: hint.into() });
    }
    let find = |i: &String| if i.is_empty() { Ok(None) } else { b.lookup(&name, i).map(Some) };
    let inputs = proto.input.iter().map(find).collect::<Result<_, _>>()?;
    let cx = Cx { proto, inputs, opset: b.opset, used: RefCell::default(), name };
    if let Some(hint) = operators::refusal(&proto.op_type, b.opset) {
        return Err(cx.unsupported(&proto.op_type, &hint));
    }
    let classes = [
        elementwise::lower,
        linear::lower,
        attention::lower,
        norm::lower,
        channel_norm::lower,
        conv::lower,
        pad::lower,
        recurrent::lower,
        shape::lower,
        constant::lower,
        fold::lower,
    ];
    let mut outputs = None;
    for lower in classes {
        outputs = lower(b, &cx).transpose()?;
        if outputs.is_some() {
            break;
        }
    }
    let Some(outputs) = outputs else {
        return Err(cx.unsupported(&proto.op_type, ""));
    };
    cx.all_attributes_used()?;
    // Optional outputs that we do not compute stay undefined: whoever reads them is refused as dangling.
    for (name, id) in proto.output.iter().zip(outputs).filter(|(name, _)| !name.is_empty()) {
        b.define(name, id)?;
    }
    Ok(())
}

/// A node in the course of lowering.
pub(crate) struct Cx<'a> {
    proto: &'a NodeProto,
    inputs: Vec<Option<ValueId>>,
    opset: i64,
    used: RefCell<Vec<&'a str>>,
    name: String,
}

impl<'a> Cx<'a> {
    fn op(&self) -> &str {
        &self.proto.op_type
    }

    /// Input `index`, which must be there.
    fn input(&self, index: usize) -> Result<ValueId, GraphError> {
        self.optional(index).ok_or_else(|| self.bad_input(index, "is missing"))
    }

    /// Input `index`, if it is there.
    fn optional(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    /// Input `index` as a constant.
    fn constant(&self, b: &Builder<'_>, index: usize) -> Result<Arc<Tensor>, GraphError> {
        let id = self.input(index)?;
        b.as_constant(id).ok_or_else(|| self.bad_input(index, "must be constant"))
    }

    /// Input `index` as a list of integers; `None` when it is absent.
    fn ints_at(&self, b: &Builder<'_>, index: usize) -> Result<Option<Vec<i64>>, GraphError> {
        let Some(_) = self.optional(index) else { return Ok(None) };
        Ok(Some(self.constant(b, index)?.data.iter().map(|&x| x as i64).collect()))
    }

    fn bad_input(&self, index: usize, why: &'static str) -> GraphError {
        GraphError::Input { node: self.name.clone(), index, why }
    }

    fn bad_attribute(&self, attribute: &str, why: impl Into<String>) -> GraphError {
        GraphError::Attribute { node: self.name.clone(), attribute: attribute.to_owned(), why: why.into() }
    }

    fn bad_shape(&self, why: impl Into<String>) -> GraphError {
        GraphError::Shape { tensor: self.proto.output.first().cloned().unwrap_or_default(), why: why.into() }
    }

    fn unsupported(&self, op: &str, hint: &str) -> GraphError {
        GraphError::Unsupported { node: self.name.clone(), op: op.to_owned(), hint: hint.to_owned() }
    }

    fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        let found = self.proto.attribute.iter().find(|a| a.name == name)?;
        self.used.borrow_mut().push(found.name.as_str());
        Some(found)
    }

    /// Attribute `name` if it has the type `kind`. One of another type stays unread, and is refused for that.
    fn typed(&self, name: &str, kind: i32) -> Option<&'a AttributeProto> {
        // Files older than the field say 0.
        let fits = |a: &&AttributeProto| a.name == name && (a.kind == kind || a.kind == 0);
        self.proto.attribute.iter().find(fits).and_then(|_| self.attribute(name))
    }

    fn int(&self, name: &str, default: i64) -> i64 {
        self.typed(name, 2).map_or(default, |a| a.i)
    }

    fn float(&self, name: &str, default: f32) -> Result<f32, GraphError> {
        let x = self.typed(name, 1).map_or(default, |a| a.f);
        if x.is_finite() { Ok(x) } else { Err(self.bad_attribute(name, format!("{x} is not finite"))) }
    }

    fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.typed(name, 7).map(|a| a.ints.clone())
    }

    fn string(&self, name: &str) -> Option<String> {
        self.typed(name, 3).map(|a| String::from_utf8_lossy(&a.s).into_owned())
    }

    fn strings(&self, name: &str) -> Vec<String> {
        let texts = self.typed(name, 8).map_or(&[][..], |a| &a.strings);
        texts.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect()
    }

    /// Axis `axis` of `rank` dimensions, counted from the end when negative.
    fn axis(&self, axis: i64, rank: usize) -> Result<usize, GraphError> {
        let wrapped = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
        let bad = || self.bad_attribute("axis", format!("{axis} for {rank} dimensions"));
        usize::try_from(wrapped).ok().filter(|&a| a < rank).ok_or_else(bad)
    }

    /// Axes that are an attribute before opset `since` and input `index` from then on.
    fn axes(&self, b: &Builder<'_>, index: usize, since: i64) -> Result<Option<Vec<i64>>, GraphError> {
        if self.opset < since { Ok(self.ints("axes")) } else { self.ints_at(b, index) }
    }

    fn all_attributes_used(&self) -> Result<(), GraphError> {
        let (used, all) = (self.used.borrow(), &self.proto.attribute);
        if let Some(a) = all.iter().find(|a| !used.contains(&a.name.as_str())) {
            return Err(self.bad_attribute(&a.name, "is not read by this version"));
        }
        // Readers disagree which of two counts.
        match all.iter().enumerate().find(|(i, a)| all[..*i].iter().any(|b| b.name == a.name)) {
            Some((_, a)) => Err(self.bad_attribute(&a.name, "stands there twice")),
            None => Ok(()),
        }
    }
}
