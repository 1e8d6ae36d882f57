// hyperdht on Node: connected by key over a small DHT of its own, Noise over UDX, a raw framed echo.
// Says and reads what benchmarks/stations.py describes.
'use strict'
const dgram = require('dgram')
const readline = require('readline')
const DHT = require('hyperdht')

const [role, settings] = [process.argv[2], JSON.parse(process.argv[3])]
const say = (word, facts = {}) => process.stdout.write(JSON.stringify({ say: word, ...facts }) + '\n')
const sleep = (s) => new Promise((resolve) => setTimeout(resolve, s * 1000))

// Cuts a stream into frames: u32 length, then f64 number and body.
function frames (socket, take) {
  let buffer = Buffer.alloc(0)
  socket.on('data', (data) => {
    buffer = buffer.length ? Buffer.concat([buffer, data]) : data
    let start = 0
    while (buffer.length - start >= 4) {
      const end = start + 4 + buffer.readUInt32BE(start)
      if (buffer.length < end) break
      take(buffer.subarray(start, end))
      start = end
    }
    buffer = buffer.subarray(start)
  })
  socket.on('end', () => socket.end())
  socket.on('error', () => {})
}

const freePort = () => new Promise((resolve) => {
  const probe = dgram.createSocket('udp4').bind(0, '127.0.0.1', () => {
    const { port } = probe.address()
    probe.close(() => resolve(port))
  })
})

async function serve () {
  const bootstrap = DHT.bootstrapper(await freePort(), '127.0.0.1')
  await bootstrap.fullyBootstrapped()
  const at = [{ host: '127.0.0.1', port: bootstrap.address().port }]
  for (let i = 0; i < 3; i++) await new DHT({ bootstrap: at, ephemeral: false, host: '127.0.0.1' }).fullyBootstrapped()
  const node = new DHT({ bootstrap: at, host: '127.0.0.1' })
  const server = node.createServer((socket) => frames(socket, (frame) => socket.write(frame)))
  await server.listen()
  say('ready', { address: { key: server.publicKey.toString('hex'), bootstrap: at } })
}

function caller (socket) {
  const waiting = new Map()
  let last = 0
  frames(socket, (frame) => {
    const number = frame.readDoubleBE(4)
    const resolve = waiting.get(number)
    waiting.delete(number)
    resolve(frame.subarray(12))
  })
  return (body) => new Promise((resolve) => {
    const frame = Buffer.allocUnsafe(12 + body.length)
    frame.writeUInt32BE(8 + body.length, 0)
    frame.writeDoubleBE(++last, 4)
    body.copy(frame, 12)
    waiting.set(last, resolve)
    socket.write(frame)
  })
}

async function carry (call, work) {
  const body = Buffer.alloc(work.bytes)
  const times = []
  let [done, over] = [0, false]
  const worker = async () => {
    while (!over) {
      const began = process.hrtime.bigint()
      await call(body)
      if (work.at_once === 1) times.push(Number(process.hrtime.bigint() - began) / 1000)
      done++
    }
  }
  const workers = Array.from({ length: work.at_once }, worker)
  await sleep(work.warm_up_s)
  say('begin')
  const [first, began] = [done, process.hrtime.bigint()]
  await sleep(work.seconds)
  const seconds = Number(process.hrtime.bigint() - began) / 1e9
  const counted = done - first
  over = true
  const facts = { done: counted, seconds, per_s: counted / seconds }
  if (work.at_once === 1) {
    const sorted = times.slice(first, first + counted).sort((a, b) => a - b)
    facts.p50_us = sorted[Math.floor(sorted.length / 2)]
    facts.p99_us = sorted[Math.floor(sorted.length * 0.99)]
  }
  say('end', facts)
  await Promise.all(workers)
}

async function client () {
  const { key, bootstrap } = settings.address
  const node = new DHT({ bootstrap, host: '127.0.0.1' })
  const open = () => new Promise((resolve, reject) => {
    const socket = node.connect(Buffer.from(key, 'hex'))
    socket.on('open', () => resolve(socket))
    socket.on('error', reject)
  })
  const session = async (body) => {
    const socket = await open()
    await caller(socket)(body)
    await new Promise((resolve) => { socket.on('close', resolve); socket.end() })
  }
  const socket = await open()
  const call = caller(socket)
  await call(Buffer.from('right?'))
  say('ready')
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const work = JSON.parse(line)
    if (work.work === 'hold') {
      say('begin')
      const held = []
      for (let i = 0; i < work.count; i += 16) {
        held.push(...await Promise.all(Array.from({ length: Math.min(16, work.count - i) }, async () => {
          const one = await open()
          await caller(one)(Buffer.alloc(0))
          return one
        })))
      }
      say('end', { held: held.length })
    } else await carry(work.work === 'sessions' ? session : call, work)
  }
  process.exit(0)
}

const failed = (error) => { say('failed', { reason: String(error) }); process.exit(1) }
if (role === 'serve') process.stdin.on('end', () => process.exit(0)).resume()
;(role === 'serve' ? serve() : client()).catch(failed)
