//! Writes ONNX files, right or wrong. A protobuf message is a list of fields; nothing here checks what they mean.

/// A graph under construction.
pub struct Graph {
    opset: i64,
    fields: Vec<u8>,
}

/// An attribute of a node.
#[derive(Clone, Debug)]
pub enum Attribute {
    Int(&'static str, i64),
    Float(&'static str, f32),
    Ints(&'static str, Vec<i64>),
    Text(&'static str, &'static str),
}

impl Graph {
    pub fn new(opset: i64) -> Self {
        Self { opset, fields: vec![] }
    }

    pub fn input(&mut self, name: &str, shape: &[i64]) {
        self.port(11, name, shape);
    }

    pub fn output(&mut self, name: &str) {
        self.port(12, name, &[]);
    }

    pub fn floats(&mut self, name: &str, shape: &[i64], data: &[f32]) {
        let raw: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensor(name, shape, 1, &raw);
    }

    pub fn ints(&mut self, name: &str, data: &[i64]) {
        let raw: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensor(name, &[data.len() as i64], 7, &raw);
    }

    pub fn node(&mut self, op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Attribute]) {
        let mut node = vec![];
        inputs.iter().for_each(|i| field(&mut node, 1, i.as_bytes()));
        outputs.iter().for_each(|o| field(&mut node, 2, o.as_bytes()));
        field(&mut node, 4, op.as_bytes());
        attributes.iter().for_each(|a| field(&mut node, 5, &attribute(a)));
        field(&mut self.fields, 1, &node);
    }

    pub fn bytes(&self) -> Vec<u8> {
        let (mut opset, mut model) = (vec![], vec![]);
        number(&mut opset, 2, self.opset);
        field(&mut model, 7, &self.fields);
        field(&mut model, 8, &opset);
        model
    }

    fn port(&mut self, tag: u64, name: &str, shape: &[i64]) {
        let (mut dims, mut tensor, mut kind, mut info) = (vec![], vec![], vec![], vec![]);
        for &d in shape {
            let mut dim = vec![];
            number(&mut dim, 1, d);
            field(&mut dims, 1, &dim);
        }
        number(&mut tensor, 1, 1);
        field(&mut tensor, 2, &dims);
        field(&mut kind, 1, &tensor);
        field(&mut info, 1, name.as_bytes());
        field(&mut info, 2, &kind);
        field(&mut self.fields, tag, &info);
    }

    fn tensor(&mut self, name: &str, shape: &[i64], kind: i64, raw: &[u8]) {
        let mut tensor = vec![];
        shape.iter().for_each(|&d| number(&mut tensor, 1, d));
        number(&mut tensor, 2, kind);
        field(&mut tensor, 8, name.as_bytes());
        field(&mut tensor, 9, raw);
        field(&mut self.fields, 5, &tensor);
    }
}

fn attribute(a: &Attribute) -> Vec<u8> {
    let mut out = vec![];
    let kind = match a {
        Attribute::Int(name, i) => {
            field(&mut out, 1, name.as_bytes());
            number(&mut out, 3, *i);
            2
        }
        Attribute::Float(name, f) => {
            field(&mut out, 1, name.as_bytes());
            varint(&mut out, 2 << 3 | 5);
            out.extend(f.to_le_bytes());
            1
        }
        Attribute::Ints(name, v) => {
            field(&mut out, 1, name.as_bytes());
            v.iter().for_each(|&i| number(&mut out, 8, i));
            7
        }
        Attribute::Text(name, s) => {
            field(&mut out, 1, name.as_bytes());
            field(&mut out, 4, s.as_bytes());
            3
        }
    };
    number(&mut out, 20, kind);
    out
}

fn field(out: &mut Vec<u8>, tag: u64, bytes: &[u8]) {
    varint(out, tag << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn number(out: &mut Vec<u8>, tag: u64, x: i64) {
    varint(out, tag << 3);
    varint(out, x as u64);
}

fn varint(out: &mut Vec<u8>, mut x: u64) {
    while x >= 0x80 {
        out.push(x as u8 | 0x80);
        x >>= 7;
    }
    out.push(x as u8);
}
