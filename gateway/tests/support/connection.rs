//! A bare connection, for crowds: an agent would need more CPU than the gateway.

use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::TcpStream;

use super::process::{Answer, Door, PATIENCE};

/// It stays open from one call to the next.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(door: &Door) -> io::Result<Connection> {
        let stream = TcpStream::connect(door.address())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    /// After an error there is no next call.
    pub fn post(&mut self, path: &str, body: &str) -> io::Result<Answer> {
        let length = body.len();
        self.write(&format!(
            "POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        ))?;
        let (status, length) = self.header()?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        let body = String::from_utf8(body).map_err(Error::other)?;
        Ok(Answer { status, body })
    }

    /// Opens a stream: the status, and what follows the header until the connection ends.
    /// In HTTP/1.0, which knows no chunks.
    pub fn stream(mut self, path: &str) -> io::Result<(u16, impl BufRead)> {
        self.write(&format!("GET {path} HTTP/1.0\r\nhost: gateway\r\n\r\n"))?;
        let (status, _) = self.header()?;
        Ok((status, self.stream))
    }

    fn write(&mut self, request: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(request.as_bytes())
    }

    /// The status, and the length of the body if the header says it.
    fn header(&mut self) -> io::Result<(u16, usize)> {
        let status = self.line()?.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or(ErrorKind::InvalidData)?;
        let mut length = 0;
        while let Some((name, value)) = self.line()?.trim_end().split_once(": ") {
            if name == "content-length" {
                length = value.parse().map_err(Error::other)?;
            }
        }
        Ok((status, length))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(line),
        }
    }
}
