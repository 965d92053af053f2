// Which of the answers on a submission's page are shown.
"use strict";

(function () {
  const lines = [...document.querySelectorAll("#answers tbody tr")];
  const chosen = ["subset", "outcome"].map((name) => document.getElementById(`of-${name}`));
  function show() {
    lines.forEach((line) => { line.hidden = chosen.some((select) => select.value && !line.classList.contains(select.value)); });
    document.getElementById("answered").textContent = `${lines.filter((line) => !line.hidden).length} of ${lines.length} answers shown`;
  }
  chosen.forEach((select) => select.addEventListener("change", show));
  addEventListener("pageshow", show);  // a browser that goes back restores what was chosen
})();
