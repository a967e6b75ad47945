// A pad to draw on, by pointer, or by arrow keys with the pen down (space).
// Drawings are kept as strokes, and drawn anew to be sent: centred, and with the size and line width
// of the embedded data set's signs.

const SIDE = 190;
const SENT_SIDE = 128;
const INK_SHARE = 0.7; // of the side
const STROKE_SHARE = 0.085;
const KEY_STEP = 8;
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Pad {
  // changed() is called after every stroke, and when the pad is cleared.
  constructor(place, label, changed) {
    this.strokes = [];
    this.changed = changed;
    this.pen = null; // moved by keys: {x, y, stroke}
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label", `${label}. Arrow keys move the pen, space lowers and lifts it.`);
    const ratio = Math.ceil(window.devicePixelRatio || 1);
    this.canvas.width = this.canvas.height = SIDE * ratio;
    this.canvas.getContext("2d").scale(ratio, ratio);
    place.classList.add("pad");
    const buttons = document.createElement("p");
    buttons.className = "buttons";
    for (const [name, act] of [["Undo", () => this.undo()], ["Clear", () => this.clear()]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", act);
      buttons.append(button);
    }
    place.append(this.canvas, buttons);
    this.canvas.addEventListener("pointerdown", (event) => this.begin(event));
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) this.canvas.addEventListener(kind, (event) => this.end(event));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("blur", () => this.leave());
  }

  get isEmpty() {
    return !this.strokes.length;
  }

  undo() {
    this.strokes.pop();
    this.show();
    this.changed();
  }

  clear() {
    this.strokes = [];
    this.show();
    this.changed();
  }

  begin(event) {
    if (event.button || !event.isPrimary || this.current) return;
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.current = [this.place(event)];
    this.strokes.push(this.current);
    this.show();
  }

  move(event) {
    if (!this.current || event.pointerId !== this.pointer) return;
    for (const each of event.getCoalescedEvents?.() ?? [event]) this.current.push(this.place(each));
    this.current.push(this.place(event));
    this.show();
  }

  end(event) {
    if (!this.current || event.pointerId !== this.pointer) return;
    this.current = null;
    this.changed();
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const move = MOVES[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    this.pen ??= { x: SIDE / 2, y: SIDE / 2, stroke: null };
    if (!move) {
      if (this.pen.stroke) {
        this.pen.stroke = null;
        this.changed();
      } else {
        this.pen.stroke = [[this.pen.x, this.pen.y]];
        this.strokes.push(this.pen.stroke);
      }
    } else {
      const [x, y] = ["x", "y"].map((axis, i) => Math.min(SIDE, Math.max(0, this.pen[axis] + KEY_STEP * move[i])));
      Object.assign(this.pen, { x, y });
      this.pen.stroke?.push([x, y]);
    }
    this.show();
  }

  // Lifts the pen of the keys.
  leave() {
    const wasDown = this.pen?.stroke;
    this.pen = null;
    this.show();
    if (wasDown) this.changed();
  }

  show() {
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, SIDE, SIDE);
    draw(context, this.strokes, SIDE * 0.055);
    if (!this.pen) return;
    context.beginPath();
    context.arc(this.pen.x, this.pen.y, this.pen.stroke ? 4 : 8, 0, 7);
    context.strokeStyle = "#0063a5";
    context.lineWidth = 2;
    context.stroke();
  }

  // Returns a canvas with the drawing to send.
  drawing() {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SENT_SIDE;
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, SENT_SIDE, SENT_SIDE);
    const [[left, right], [top, bottom]] = [0, 1].map((axis) => range(this.strokes.flat().map((point) => point[axis])));
    const line = SENT_SIDE * STROKE_SHARE;
    const room = SENT_SIDE * INK_SHARE - line;
    const zoom = Math.min(room / Math.max(right - left, bottom - top, 1), SENT_SIDE / 20);
    const middle = ([x, y]) =>
      [SENT_SIDE / 2 + zoom * (x - (left + right) / 2), SENT_SIDE / 2 + zoom * (y - (top + bottom) / 2)];
    draw(context, this.strokes.map((stroke) => stroke.map(middle)), line);
    return canvas;
  }
}

function range(values) {
  return values.reduce(([least, most], x) => [Math.min(least, x), Math.max(most, x)], [Infinity, -Infinity]);
}

function draw(context, strokes, width) {
  Object.assign(context, { lineWidth: width, lineCap: "round", lineJoin: "round", strokeStyle: "#111" });
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(...stroke[0]);
    for (const point of stroke.slice(1)) context.lineTo(...point);
    if (stroke.length === 1) context.lineTo(stroke[0][0] + 0.01, stroke[0][1]);
    context.stroke();
  }
}
